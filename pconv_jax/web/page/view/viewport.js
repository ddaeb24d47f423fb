/**
 * Where the photograph lies on the stage. Lengths on the stage are pixels of the screen, not of CSS.
 */

const MARGIN = 24; // Space around a fitted photograph, in CSS pixels.
const LARGEST = 32;

export class Viewport {
  constructor(width, height) {
    this.width = width; // of the photograph
    this.height = height;
    this.scale = 1; // Pixels of the screen per pixel of the photograph.
    this.x = 0; // The photograph's left upper corner on the stage.
    this.y = 0;
    this.stage = { width: 1, height: 1, ratio: 1 };
    this.fitted = true;
  }

  /** Adapts to a new size of the stage; a photograph that was fitted is fitted again. */
  resize(stage) {
    const before = this.stage;
    this.stage = stage;
    if (this.fitted) {
      this.fit();
    } else {
      const factor = stage.ratio / before.ratio;
      this.scale *= factor;
      this.x = this.x * factor + (stage.width - before.width * factor) / 2;
      this.y = this.y * factor + (stage.height - before.height * factor) / 2;
      this.keepInSight();
    }
  }

  /** Returns the scale at which the whole photograph is visible; small photographs are not enlarged. */
  get fittingScale() {
    const margin = 2 * Math.min(MARGIN * this.stage.ratio, this.stage.width / 16);
    const width = Math.max(1, this.stage.width - margin);
    const height = Math.max(1, this.stage.height - margin);
    return Math.min(width / this.width, height / this.height, this.stage.ratio * 2);
  }

  fit() {
    this.fitted = true;
    this.scale = this.fittingScale;
    this.x = Math.round((this.stage.width - this.width * this.scale) / 2);
    this.y = Math.round((this.stage.height - this.height * this.scale) / 2);
  }

  /** Zooms by a factor; the point of the photograph under (x, y) of the stage stays there. */
  zoomAt(x, y, factor) {
    const smallest = Math.min(this.fittingScale, 1) / 2;
    const scale = Math.min(LARGEST, Math.max(smallest, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.keepInSight();
  }

  /** Zooms to a scale around the middle of the stage. */
  zoomTo(scale) {
    this.zoomAt(this.stage.width / 2, this.stage.height / 2, scale / this.scale);
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.keepInSight();
  }

  /** Moves the photograph as little as needed for the point of the photograph to be visible. */
  show(point) {
    const { x, y } = this.toStage(point);
    const margin = 40 * this.stage.ratio;
    const dx = Math.max(0, margin - x) - Math.max(0, x - (this.stage.width - margin));
    const dy = Math.max(0, margin - y) - Math.max(0, y - (this.stage.height - margin));
    if (dx || dy) {
      this.pan(dx, dy);
    }
    return Boolean(dx || dy);
  }

  toPhotograph(x, y) {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  toStage(point) {
    return { x: point.x * this.scale + this.x, y: point.y * this.scale + this.y };
  }

  /** Keeps some of the photograph on the stage, so that it cannot be lost. */
  keepInSight() {
    const rest = 48 * this.stage.ratio;
    const { width, height } = this.stage;
    this.x = Math.min(width - rest, Math.max(rest - this.width * this.scale, this.x));
    this.y = Math.min(height - rest, Math.max(rest - this.height * this.scale, this.y));
  }
}
