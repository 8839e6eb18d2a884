"""Pictures of a history: a page with a timeline, the same page kept current by a server, and a plain SVG."""

from sliceform.controller.report.page import timeline_page
from sliceform.controller.report.serve import Server, serve
from sliceform.controller.report.svg import timeline_svg

__all__ = ["Server", "serve", "timeline_page", "timeline_svg"]
