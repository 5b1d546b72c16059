"""A text that others wrote, made fit for a comment on GitHub. The standard library alone: nothing is installed here."""

import html
import re
import unicodedata

# GitHub takes 65,536 characters. Bytes are never fewer, so whatever it counts as a character, this many fit.
LONGEST_BYTES = 65_536

_WORD_JOINER = "\u2060"
# What Unicode has a reader's screen leave out, beside control and format characters; and two that have no ink.
# Source: Default_Ignorable_Code_Point in DerivedCoreProperties.txt of the Unicode Character Database.
_LEFT_OUT = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U0001d159\U000e0000-\U000e0fff]"
)
_CONTROL_OR_FORMAT = {"Cc", "Cf", "Zl", "Zp"}
# It gives signs such as ⚠️ their colours, and means nothing elsewhere.
_COLOUR = "\ufe0f"
_NO_STAGE = "".join(rf"(?<![\s`]{stage}@)" for stage in ("train", "evaluate", "test", "export"))
_AT = "@\ufe6b\uff20"
# A link is left where a letter or digit ends its text, and its target is an address with nothing behind it; a picture
# where its text is a word; a code block where it is of no language or of the report's own.
_HIDING_LINK = re.compile(r"(?<![^\W_])\]\(|\]\((?![^\s()<>\\]+\))")
_HIDING_PICTURE = re.compile(r"!\[(?!\w+\]\()")
_HIDING_FENCE = re.compile(
    r"^((?:[^\w`~\n]|\d)*[`~])(?=(?:`{2,}(?!`)(?!.*`)|~{2,}(?!~))(?!(?:bash)?[ \t]*$))", re.MULTILINE
)
# owner/name#1 and GH-1, and the addresses of the same. A backslash before a sign is not seen.
_OF_ANOTHER = re.compile(
    r"#(?=\d)(?!(?<=(?<!\\)&#)\d{1,7};)|gh\\?-(?=\d)|/(?=(?:issues|pull|discussions|commit)\\?/)", re.IGNORECASE
)
# HTML takes leading zeros without end, and does without the semicolon.
_REFERENCE = re.compile(
    r"&(?:#0*([0-9]{1,7})(?![0-9])|#[xX]0*([0-9a-fA-F]{1,6})(?![0-9a-fA-F])|([A-Za-z][A-Za-z0-9]*));?"
)


def harmless(text: str) -> str:
    """The text with nothing in it that is not seen, and without calling anybody by name.

    Invisible characters and HTML comments are removed. Other HTML than the report's own is shown as it was written,
    and so are definitions of links and footnotes, links with a title or without a text, pictures with more than a word
    for a text, and what follows the fence of a code block: Markdown would not show them. What GitHub would make a link
    to an issue or a commit of, with a note there, is made none.

    Behind every '@' follows a word joiner, which is not seen: what stands before an '@' does not tell whether GitHub
    takes it for a mention, since that looks at the HTML that Markdown has become. Stages' names, as in
    ``train@model_1``, are left as they are: they are there to be copied.
    """
    text = _without_invisible(text)
    text = re.sub(r"<!--.*?(?:-->|\Z)", "", text, flags=re.DOTALL)
    # Browsers take these for comments, too; and what was around a comment may have become one.
    text = re.sub(r"<(?=[!?])", "&lt;", text)
    text = re.sub(r"<(?=[A-Za-z/])(?!(?:/?details|/?summary|br)>)", f"<{_WORD_JOINER}", text)
    text = text.replace("]:", f"]{_WORD_JOINER}:")
    text = _HIDING_LINK.sub(f"]{_WORD_JOINER}(", text)
    text = _HIDING_PICTURE.sub(f"!{_WORD_JOINER}[", text)
    text = _REFERENCE.sub(_harmless_reference, text)
    for pattern in (_HIDING_FENCE, _OF_ANOTHER):
        text = pattern.sub(rf"\g<0>{_WORD_JOINER}", text)
    return re.sub(rf"{_NO_STAGE}(?<=[{_AT}])", _WORD_JOINER, text)


def _without_invisible(text: str) -> str:
    kept: list[str] = []
    for character in text:
        coloured = character == _COLOUR and kept and unicodedata.category(kept[-1]) == "So"
        if coloured or not _is_invisible(character):
            kept.append(character)
    return "".join(kept)


def _is_invisible(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in _CONTROL_OR_FORMAT or bool(_LEFT_OUT.match(character))


def _harmless_reference(reference: re.Match[str]) -> str:
    """A character reference, which is as good as the character."""
    decimal, hexadecimal, _ = reference.groups()
    short = f"&#{decimal};" if decimal else f"&#x{hexadecimal};" if hexadecimal else reference[0]
    meant = html.unescape(short)
    if any(sign in meant for sign in _AT):
        return reference[0] + _WORD_JOINER
    if re.fullmatch("[A-Za-z0-9#/-]+", meant):
        return f"{_WORD_JOINER}{reference[0]}{_WORD_JOINER}"
    if not meant or any(map(_is_invisible, meant)):
        # Shown as it was written. Were it removed, what is around it could become another one.
        return "&amp;" + reference[0][1:]
    return reference[0]


def fitting(text: str, ending: str, longest: int = LONGEST_BYTES) -> str:
    """The text, or as many of its lines as fit with ``ending`` behind them; what is open there is closed.

    Args:
        longest: in bytes of UTF-8.
    """
    if size(text) <= longest:
        return text
    lines = text.splitlines(keepends=True)
    kept, end, read, fence, folds = 0, ending, 0, "", 0
    for count, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), start=1):
        read += size(line)
        if read > longest:
            break
        opened = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if opened and not fence:
            fence = opened[1]
        elif opened and opened[1].startswith(fence) and line.strip() == opened[1]:
            fence = ""
        elif not fence:
            folds += line.count("<details") - line.count("</details>")
        if "-" in following and set(following) <= set("|:- \n"):
            continue  # A table without the line below its header is none.
        closing = (f"{fence}\n" if fence else "") + "\n" + "</details>\n\n" * folds + ending
        if read + size(closing) <= longest:
            kept, end = count, closing
    return "".join(lines[:kept]) + end


def size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode())
