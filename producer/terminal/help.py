"""Lays out the help pages: verbs by what a person wants to do, and examples below each verb's options."""

from __future__ import annotations

from typing import Any

import click

from shared.command_exit import DEBUG_OPTION

DEBUG_HELP = "Show where in the code an error comes from."


#: The verbs as the help lists them: by what a person wants to do.
SECTIONS = {
    "Before anything runs": ("plan", "models", "show"),
    "On this machine": ("render",),
    "On a fleet": ("worker", "submit", "status", "pause", "resume", "cancel", "priority", "retry"),
    "What came of it": ("results", "find", "fetch", "sheet", "verify"),
    "Looking after it": ("doctor",),
}


EXAMPLES = {
    "plan": """
        printroom plan sweep.yaml
        printroom plan sweep.yaml --set seed.count=100 --sample 20
        printroom plan sweep.yaml --diff mustaches
        """,
    "models": """
        printroom models
        printroom models portraits
        """,
    "show": """
        printroom show image.png
        printroom show image.png --sweep > again.yaml
        """,
    "render": """
        printroom render sweep.yaml
        printroom render sweep.yaml --out prints/first --set steps=10
        printroom render "portrait of a woman with a hat" --negative glasses --count 8
        """,
    "worker": """
        printroom worker
        printroom worker --device all --models /srv/models
        """,
    "submit": """
        printroom submit sweep.yaml
        printroom submit urgent.yaml --priority 10
        """,
    "status": """
        printroom status
        printroom status mustaches --watch
        printroom status --watch
        """,
    "pause": "printroom pause mustaches",
    "resume": "printroom resume mustaches",
    "cancel": "printroom cancel mustaches",
    "priority": "printroom priority mustaches 5",
    "retry": """
        printroom retry mustaches
        printroom retry mustaches --code out_of_memory --where 'seed<10' --dry-run
        """,
    "verify": """
        printroom verify mustaches
        printroom verify mustaches --deep --repair
        """,
    "results": """
        printroom results mustaches
        printroom results mustaches --where status=failed --json
        printroom results mustaches --where 'prompt~woman' --where 'seed<10'
        """,
    "find": """
        printroom find 'prompt~woman'
        printroom find 'prompt=~hats?$' 'guidance_scale>=5' --json --limit 20
        """,
    "fetch": """
        printroom fetch mustaches home
        printroom fetch mustaches home --where 'seed<10' --format parquet
        """,
    "sheet": """
        printroom sheet mustaches -o sheet.png
        printroom sheet mustaches -o sheet.html --rows negative_prompt --cols seed
        """,
    "doctor": """
        printroom doctor
        printroom doctor --create-bucket
        """,
}


class Verb(click.Command):
    """A verb: has --debug, and examples after its options."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # `run_command` looks for it; here it is only allowed and explained.
        debug = click.Option([DEBUG_OPTION], is_flag=True, expose_value=False, help=DEBUG_HELP)
        self.params.append(debug)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, one a line, never broken or joined."""
        lines = EXAMPLES.get(self.name or "", "").strip().splitlines()
        if lines:
            with formatter.section("Examples"):
                for line in lines:
                    formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


class Verbs(click.Group):
    """All verbs, listed by what a person wants to do."""

    command_class = Verb

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each verb's first sentence, whole."""
        for section, names in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(500)) for name in names])
