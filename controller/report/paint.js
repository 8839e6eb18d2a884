"use strict";
// Two painters with the same few strokes: one on a canvas, one that writes SVG, so that an export shows what is seen.

class CanvasPainter {
  constructor(context, width, height, ratio) {
    this.context = context;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.textBaseline = "middle";
  }

  rect(x, y, width, height, fill) {
    this.context.fillStyle = fill;
    this.context.fillRect(x, y, width, height);
  }

  text(text, x, y, fill, { size = 12, bold = false, align = "left" } = {}) {
    this.context.fillStyle = fill;
    this.context.font = `${bold ? 600 : 400} ${size}px system-ui, sans-serif`;
    this.context.textAlign = align;
    this.context.fillText(text, x, y);
  }

  line(points, stroke, width = 1, dash = []) {
    this.context.strokeStyle = stroke;
    this.context.lineWidth = width;
    this.context.setLineDash(dash);
    this.context.beginPath();
    points.forEach(([x, y], index) => (index ? this.context.lineTo(x, y) : this.context.moveTo(x, y)));
    this.context.stroke();
  }

  shape(points, fill) {
    this.context.fillStyle = fill;
    this.context.beginPath();
    points.forEach(([x, y], index) => (index ? this.context.lineTo(x, y) : this.context.moveTo(x, y)));
    this.context.fill();
  }

  clip(x, y, width, height, draw) {
    this.context.save();
    this.context.beginPath();
    this.context.rect(x, y, width, height);
    this.context.clip();
    draw();
    this.context.restore();
  }
}

class SvgPainter {
  // Several pictures may stand in one document, where a name may be given only once.
  static clips = 0;

  constructor(width, height) {
    this.head = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif">`;
    this.parts = [];
  }

  static escape(text) {
    const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
    // Control characters are not allowed in XML, and exceptions bring anything.
    return String(text).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, "\ufffd").replace(/[&<>"]/g, (one) => names[one]);
  }

  static number(value) {
    return Number(value.toFixed(2));
  }

  rect(x, y, width, height, fill) {
    const [a, b, c, d] = [x, y, width, height].map(SvgPainter.number);
    this.parts.push(`<rect x="${a}" y="${b}" width="${c}" height="${d}" fill="${fill}"/>`);
  }

  text(text, x, y, fill, { size = 12, bold = false, align = "left" } = {}) {
    const anchor = { left: "start", center: "middle", right: "end" }[align];
    this.parts.push(
      `<text x="${SvgPainter.number(x)}" y="${SvgPainter.number(y)}" fill="${fill}" font-size="${size}"${bold ? ' font-weight="600"' : ""} text-anchor="${anchor}" dominant-baseline="central">${SvgPainter.escape(text)}</text>`,
    );
  }

  line(points, stroke, width = 1, dash = []) {
    const path = points.map((point) => point.map(SvgPainter.number).join(",")).join(" ");
    this.parts.push(
      `<polyline points="${path}" fill="none" stroke="${stroke}" stroke-width="${width}"${dash.length ? ` stroke-dasharray="${dash.join(" ")}"` : ""}/>`,
    );
  }

  shape(points, fill) {
    const path = points.map((point) => point.map(SvgPainter.number).join(",")).join(" ");
    this.parts.push(`<polygon points="${path}" fill="${fill}"/>`);
  }

  clip(x, y, width, height, draw) {
    const id = `clip-${++SvgPainter.clips}`;
    this.parts.push(`<clipPath id="${id}"><rect x="${x}" y="${y}" width="${width}" height="${height}"/></clipPath><g clip-path="url(#${id})">`);
    draw();
    this.parts.push("</g>");
  }

  toString() {
    return `${this.head}\n${this.parts.join("\n")}\n</svg>\n`;
  }
}
