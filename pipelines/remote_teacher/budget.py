"""What answers cost: estimated before they are asked for, counted when they come, never above the cap."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pipelines.config import ApiTeacher
from pipelines.errors import RecipeError
from pipelines.remote_teacher.patience import Stopped
from pipelines.remote_teacher.questions import Question

#: Bytes of text a token: less than English has (4 to 5), so that the estimate is rather too high.
BYTES_PER_TOKEN = 3
#: Tokens that a chat template puts around a message.
TEMPLATE_TOKENS = 8
MILLION = 1_000_000


def estimated_tokens(text: str) -> int:
    """Tokens of a text, where nobody has counted them."""
    return -(-len(text.encode("utf-8")) // BYTES_PER_TOKEN)


def cost_of(teacher: ApiTeacher, input_tokens: int, output_tokens: int) -> float:
    """The price of so many tokens."""
    return (input_tokens * teacher.price.input + output_tokens * teacher.price.output) / MILLION


def estimated_cost(teacher: ApiTeacher, question: Question) -> float:
    """A request's cost at its full `max_tokens`."""
    asked = estimated_tokens(question.prompt) + TEMPLATE_TOKENS
    return cost_of(teacher, asked, teacher.sampling.max_tokens)


class Budget:
    """Money spent, and money set aside for requests under way. For many threads."""

    def __init__(self, teacher: ApiTeacher, spent: float) -> None:
        self._teacher, self._spent, self._set_aside, self._under_way = teacher, spent, 0.0, 0
        self._changed, self._stopped = threading.Condition(), False

    @property
    def spent(self) -> float:
        """What the stored answers and the lost requests cost."""
        return self._spent

    def check(self, missing: Sequence[Question]) -> float:
        """The estimate for what is yet to be asked. Raises RecipeError where it passes the cap."""
        estimate = sum(estimated_cost(self._teacher, question) for question in missing)
        if missing and self._spent + estimate > self._teacher.max_cost:
            raise RecipeError(
                f"teach.max_cost is {self._teacher.max_cost:g}, but {len(missing)} answers are estimated at "
                f"{estimate:.6g} ({self._spent:.6g} is spent; a token is {BYTES_PER_TOKEN} bytes of prompt, an answer "
                f"{self._teacher.sampling.max_tokens} tokens); raise it, or ask for fewer or shorter answers"
            )
        return estimate

    def reserve(self, amount: float) -> None:
        """Set money aside for a request; waits for those under way where they might leave enough.

        Raises RecipeError where there is not enough, Stopped where the work ends.
        """
        with self._changed:
            while not self._stopped and self._over(amount) and self._under_way:
                self._changed.wait()
            if self._stopped:
                raise Stopped
            if self._over(amount):
                raise RecipeError(
                    f"teach.max_cost is {self._teacher.max_cost:g}, {self._spent:.6g} of it is spent and the next "
                    f"answer may cost {amount:.6g}; raise it"
                )
            self._set_aside += amount
            self._under_way += 1

    def settle(self, amount: float, cost: float) -> None:
        """Give back what was set aside, and spend what it came to."""
        with self._changed:
            self._under_way -= 1
            # What was added and taken away in another order leaves dust.
            self._set_aside = self._set_aside - amount if self._under_way else 0.0
            self._spent += cost
            self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _over(self, amount: float) -> bool:
        return self._spent + self._set_aside + amount > self._teacher.max_cost * (1 + 1e-9)
