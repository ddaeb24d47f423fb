/**
 * The stage: two canvases, one for the photograph and one for the painted area, which are drawn at most once per frame.
 */

import { union } from "../mask/rect.js";

export class Stage {
  /**
   * @param {HTMLElement} element the stage.
   * @param {() => void} moved is called after a frame in which the photograph moved on the stage.
   * @param {() => void} resized is called when the stage has another size.
   */
  constructor(element, moved, resized) {
    this.element = element;
    this.moved = moved;
    this.resized = resized;
    this.photo = null;
    this.before = 0; // Share of the width, from the left, that shows the original.
    this.size = { width: 1, height: 1, ratio: 1 };
    this.cssPixel = 1; // Pixels of the screen per CSS pixel.
    this.picture = element.querySelector(".picture").getContext("2d");
    this.area = element.querySelector(".area").getContext("2d");
    this.#forget();
    this.#observe();
  }

  #forget() {
    this.wholeFrame = false;
    this.changed = null;
    this.requested = false;
  }

  #observe() {
    const observer = new ResizeObserver(([entry]) => {
      const exact = entry.devicePixelContentBoxSize?.[0];
      const css = entry.contentBoxSize[0];
      const ratio = window.devicePixelRatio || 1;
      const width = pixels(css.inlineSize, ratio, exact?.inlineSize);
      const height = pixels(css.blockSize, ratio, exact?.blockSize);
      this.size = { width, height, ratio };
      this.cssPixel = width / Math.max(1, entry.contentRect.width);
      this.photo?.viewport.resize(this.size);
      this.resized();
      this.draw();
    });
    try {
      observer.observe(this.element, { box: "device-pixel-content-box" });
    } catch {
      observer.observe(this.element); // Safari has no such box.
    }
  }

  /** Shows a photograph, or nothing. */
  show(photo) {
    this.photo = photo;
    photo?.viewport.resize(this.size);
    this.draw();
  }

  /** Draws everything with the next frame. */
  draw() {
    this.wholeFrame = true;
    this.#request();
  }

  /** Draws the pixels of the mask that changed with the next frame. */
  drawArea(rect) {
    this.changed = union(this.changed, rect);
    this.#request();
  }

  /** Returns a point of the stage, in pixels of the screen, from a pointer event's position. */
  fromPointer(event) {
    const box = this.element.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) * this.size.width) / box.width,
      y: ((event.clientY - box.top) * this.size.height) / box.height,
    };
  }

  /** Returns a length or position on the stage in CSS pixels. */
  toCss(length) {
    return length / this.cssPixel;
  }

  #request() {
    if (!this.requested) {
      this.requested = true;
      requestAnimationFrame(() => this.#frame());
    }
  }

  #frame() {
    const { photo, wholeFrame, changed } = this;
    this.#forget();
    if (wholeFrame) {
      for (const { canvas } of [this.picture, this.area]) {
        if (canvas.width !== this.size.width || canvas.height !== this.size.height) {
          canvas.width = this.size.width;
          canvas.height = this.size.height;
        }
      }
    }
    if (!photo?.picture) {
      this.picture.clearRect(0, 0, this.size.width, this.size.height);
      this.area.clearRect(0, 0, this.size.width, this.size.height);
      return;
    }
    photo.maskPicture.update(changed);
    if (wholeFrame) {
      photo.picture.draw(this.picture, photo.viewport, this.before);
    }
    photo.maskPicture.draw(this.area, photo.viewport, wholeFrame ? null : changed);
    if (wholeFrame) {
      this.moved();
    }
  }
}

/** Returns a length in pixels of the screen: the browser's exact number, unless it ignores an emulated screen. */
function pixels(css, ratio, exact) {
  const computed = Math.max(1, Math.round(css * ratio));
  return Math.abs((exact ?? Infinity) - computed) <= 1 ? Math.max(1, exact) : computed;
}
