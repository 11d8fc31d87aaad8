"""Teachers that are only reachable by API: any OpenAI-compatible endpoint.

`ask_teacher` asks for the answers that a recipe wants and its store lacks; `answers` makes training rows of them. Between
the two stands a folder:

answers.json   sha256 of a row's text -> the answers that were kept
remote.json    model, prompt, sampling, counts, tokens, cost
"""

from pipelines.remote_teacher.rows import answers, ask_teacher

__all__ = ["answers", "ask_teacher"]
