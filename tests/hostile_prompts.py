"""Prompts that mean harm, or are only unusual, where they are read, shown or written."""

HOSTILE = (
    "../../etc/passwd",
    "<img src=x onerror=alert(1)>",
    "x" * 10_000,
    "قطة سوداء على العشب",
    "a cat 🐈‍⬛ on the moon 🌕",
    "red \x1b[31malarm\x07 \x00 \u202egnitirw",
    "[bold red]marked up[/] and [/wrong]",
    "a line\u2028separator and a\x0cform feed",
)
