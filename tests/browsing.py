"""Pages as their tests look at them: the elements, and what a browser says."""

import html.parser


class Elements(html.parser.HTMLParser):
    """The elements of a page and the text outside scripts."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.found, self.texts, self.inside = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.texts.append(data)


def visited(browser, path, width, scheme):
    """Return a context without network, its page that shows a file, and what the page says."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    shown, said = context.new_page(), []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("dialog", lambda dialog: said.append(dialog.message))
    shown.on("requestfailed", lambda request: said.append(request.url))
    shown.goto(path.as_uri())
    return context, shown, said
