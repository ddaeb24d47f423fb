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

  /** Undoes the last step, and returns what its `undo` returns: a promise if something has to be loaded. */
  undo() {
    const step = this.#done.pop();
    if (step) {
      this.#undone.push(step);
    }
    return step?.undo();
  }

  /** Redoes the step that was undone last, and returns what its `redo` returns. */
  redo() {
    const step = this.#undone.pop();
    if (step) {
      this.#done.push(step);
    }
    return step?.redo();
  }
}
