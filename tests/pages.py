"""Pages of HTML as tests look at them."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "link", "br", "img", "input"}
SILENT = {"style", "script"}


class Page(HTMLParser):
    """Tags, texts and attributes of a page; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] not in SILENT:
            self.texts.append(" ".join(data.split()))

    @property
    def text(self):
        return "\n".join(self.texts)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def after(self, text, count):
        """The texts that follow a text."""
        at = self.texts.index(text)
        return self.texts[at + 1 : at + 1 + count]

    def pictures(self, volume, where):
        """Scan and overlay of a plane, decoded."""
        found = [a for a in self.all("img") if a["alt"].split(";")[0].endswith(f"of volume {volume}, {where}")]
        return [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(a["src"].split(",", 1)[1]))).convert(mode))
            for a, mode in zip(found[-2:], ("L", "RGBA"), strict=True)
        ]
