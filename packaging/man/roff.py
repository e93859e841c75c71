"""Text as man(7) wants it."""


def escape(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    # What typesetting would turn into something that cannot be copied.
    for letter, name in {"'": "aq", "`": "ga", "^": "ha", "~": "ti", '"': "dq"}.items():
        text = text.replace(letter, f"\\({name}")
    return "\\&" + text if text.startswith((".", "\\(aq")) else text


class Page:
    def __init__(self, name, section, source):
        # Set from the left: names and patterns are long, and must not be broken.
        self.lines = [f'.TH {name} {section} "" "{source}" ""', ".nh", ".ad l"]

    def raw(self, text):
        self.lines.append(text)

    def line(self, text):
        self.lines.append(text)

    def section(self, title):
        self.raw(f".SH {escape(title)}")

    def heading(self, title):
        self.raw(f'.SS "{escape(title)}"')

    def text(self, text):
        """Paragraphs; lines that are laid out by hand stay as they are."""
        for paragraph in text.strip("\n").split("\n\n") if text.strip() else []:
            self.raw(".PP")
            laid_out = False
            for line in paragraph.split("\n"):
                by_hand = line.startswith(" ") or "  " in line.strip()
                if by_hand != laid_out:
                    self.raw(".nf" if by_hand else ".fi")
                    laid_out = by_hand
                self.raw(escape(line))
            if laid_out:
                self.raw(".fi")

    def entry(self, name, rest, text):
        """A tagged paragraph: `name` in bold, `rest` plain."""
        self.raw(".TP")
        self.raw(f"\\fB{escape(name)}\\fR{escape(rest)}")
        for line in text.split("\n"):
            self.raw(escape(line))

    def done(self):
        return "\n".join(self.lines) + "\n"
