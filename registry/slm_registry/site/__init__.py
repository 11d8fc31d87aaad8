"""The catalogue: a static site written from the logs of a registry, for people.

Reading (collect), numbers (measures, plots), words (words, card), pages (pages and templates/) and the folder that
they land in (writing) are a module each. Needs the extra `site`.
"""
