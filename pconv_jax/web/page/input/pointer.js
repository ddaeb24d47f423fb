/**
 * Mouse, pen and fingers on the stage: painting, moving and zooming.
 */

const PEN_ERASER = 32; // The bit of `buttons` for the other end of a pen.
const LEFT = 0;
const MIDDLE = 1;
const RIGHT = 2;

export class PointerInput {
  constructor(app, element) {
    this.app = app;
    this.element = element;
    this.pointers = new Map(); // Positions on the stage of the pointers that are down.
    this.moving = null; // Number of the pointer that moves the photograph.
    this.spaceHeld = false;
    element.addEventListener("pointerdown", (event) => this.#down(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    element.addEventListener("pointerup", (event) => this.#up(event));
    element.addEventListener("pointercancel", (event) => this.#up(event));
    element.addEventListener("pointerleave", () => this.app.showCursor(null));
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  #down(event) {
    const { app } = this;
    if (!app.ready || event.target.closest("button, [role=slider], input")) {
      return;
    }
    event.preventDefault(); // The middle button would scroll.
    this.element.focus({ preventScroll: true });
    this.element.setPointerCapture(event.pointerId);
    const position = app.stage.fromPointer(event);
    this.pointers.set(event.pointerId, position);
    if (this.pointers.size === 1 && app.painter.active) {
      app.painter.end(); // The keyboard had put the brush down.
    }
    if (this.pointers.size > 1) {
      app.painter.cancel(); // The second finger turns a stroke into moving and zooming.
      return;
    }
    if (event.button === MIDDLE || (event.button === LEFT && this.spaceHeld)) {
      this.moving = event.pointerId;
      this.#look();
    } else if ((event.button === LEFT || event.button === RIGHT || event.button === 5) && app.mayPaint()) {
      const erase = app.tool === "eraser" || event.button === RIGHT || Boolean(event.buttons & PEN_ERASER);
      app.painter.begin(app.photo.viewport.toPhotograph(position.x, position.y), { erase, straight: event.shiftKey });
    }
    this.#showCursor(event);
  }

  #move(event) {
    const { app } = this;
    if (!app.ready) {
      return;
    }
    if (this.pointers.size > 1 && this.pointers.has(event.pointerId)) {
      this.#pinch(event);
    } else if (this.moving === event.pointerId) {
      const before = this.pointers.get(event.pointerId);
      const position = app.stage.fromPointer(event);
      this.pointers.set(event.pointerId, position);
      app.photo.viewport.pan(position.x - before.x, position.y - before.y);
      app.stage.draw();
    } else if (app.painter.active && this.pointers.has(event.pointerId)) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const part of events.length ? events : [event]) {
        const { x, y } = app.stage.fromPointer(part);
        app.painter.move(app.photo.viewport.toPhotograph(x, y));
      }
    }
    this.#showCursor(event);
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId)) {
      return;
    }
    if (this.moving === event.pointerId) {
      this.moving = null;
      this.#look();
    } else if (this.app.painter.active && !this.pointers.size) {
      if (event.type === "pointercancel") {
        this.app.painter.cancel();
      } else {
        this.app.painter.end();
      }
    }
  }

  /** Moves and zooms with two fingers: the points under them stay under them. */
  #pinch(event) {
    const { app } = this;
    const { viewport } = app.photo;
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
    const other = others[0][1];
    const before = this.pointers.get(event.pointerId);
    const position = app.stage.fromPointer(event);
    this.pointers.set(event.pointerId, position);
    const spread = Math.hypot(position.x - other.x, position.y - other.y);
    const factor = spread / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
    viewport.pan((position.x - before.x) / 2, (position.y - before.y) / 2);
    viewport.zoomAt((position.x + other.x) / 2, (position.y + other.y) / 2, factor);
    app.stage.draw();
    app.refresh();
  }

  #wheel(event) {
    const { app } = this;
    if (!app.ready) {
      return;
    }
    event.preventDefault();
    const pixels = (event.deltaY || event.deltaX) * (event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1);
    if (event.altKey) {
      app.changeSize(Math.exp(-pixels * 0.002));
    } else {
      const { x, y } = app.stage.fromPointer(event);
      // Browsers report two fingers on a touch pad as a wheel with Ctrl, in smaller steps.
      app.photo.viewport.zoomAt(x, y, Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.002)));
      app.stage.draw();
    }
    this.#showCursor(event);
    app.refresh();
  }

  /** Space was pressed or released: while it is held, the pointer moves the photograph. */
  holdSpace(held) {
    this.spaceHeld = held;
    this.#look();
  }

  #look() {
    this.element.dataset.moving = this.moving !== null ? "now" : this.spaceHeld ? "ready" : "";
  }

  #showCursor(event) {
    const hidden = event.pointerType === "touch" || this.spaceHeld || this.moving !== null;
    const { x, y } = this.app.stage.fromPointer(event);
    this.app.showCursor(hidden ? null : this.app.photo.viewport.toPhotograph(x, y));
  }
}
