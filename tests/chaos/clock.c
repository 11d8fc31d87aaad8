/* Preloaded into a program: the time of day is off by the seconds that stand in the file $CLOCK_OFFSET, looked at ten times a second.
   All else, clocks that only run on and sleeping among it, is the machine's. libfaketime 0.9.10 breaks clock_nanosleep until a moment. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);

static long offset(void) {
    static _Atomic long seconds, looked = -1;
    struct timespec now;
    real(CLOCK_MONOTONIC, &now);
    long tick = now.tv_sec * 10 + now.tv_nsec / 100000000;
    if (tick != looked) {
        const char *name = getenv("CLOCK_OFFSET");
        FILE *file = name ? fopen(name, "r") : NULL;
        long found;
        if (file && fscanf(file, "%ld", &found) == 1) seconds = found;
        if (file) fclose(file);
        looked = tick;
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, time);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += offset();
    return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
