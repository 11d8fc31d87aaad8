"""The commands of `slm-registry`, a module a group.

A group has `add(commands, common)`, which registers each of its commands with `set_defaults(run=...)`;
`run(registry, options)` answers the value that --json prints, and the text that is printed without.
`may_be_zero` names its options that may be 0 though they are numbers with a point. A command that needs no store has `run_alone(options)` instead.
"""
