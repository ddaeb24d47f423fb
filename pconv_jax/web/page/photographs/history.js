/**
 * What was done to a photograph, to be undone and redone without limit.
 */

export class History {
  #done = [];
  #undone = [];

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** Adds a step `{undo(), redo()}` that was just done. */
  push(step) {
    this.#done.push(step);
    this.#undone = [];
  }

  undo() {
    const step = this.#done.pop();
    if (step) {
      step.undo();
      this.#undone.push(step);
    }
  }

  redo() {
    const step = this.#undone.pop();
    if (step) {
      step.redo();
      this.#done.push(step);
    }
  }
}
