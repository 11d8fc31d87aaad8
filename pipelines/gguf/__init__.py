"""A model that writes as one GGUF file, which llama.cpp and what is built on it run. Needs the dependency group `runtimes`."""
