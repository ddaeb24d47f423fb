/**
 * Requests to the server. While it does not answer, they wait and are sent again when it is back.
 */

const PING_MILLISECONDS = 1000;
const ATTEMPTS = 4; // Of one request that fails although the server answers others.

/** An answer that reports an error, with the server's sentence about it. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

class Connection extends EventTarget {
  lost = false;
  moved = false; // The server answers, but no longer knows this page's address.
  #back = null;

  /**
   * Sends a request and returns the answer; waits while the server does not answer.
   *
   * @param {string} path below `api/`.
   * @param {RequestInit} options of `fetch`.
   * @throws {ServerError} the server reports an error.
   */
  async request(path, options = {}) {
    for (let attempt = 1; ; attempt++) {
      let answer;
      try {
        answer = await fetch(`api/${path}`, options);
      } catch (error) {
        if (options.signal?.aborted || attempt === ATTEMPTS) {
          throw error;
        }
        await this.#waitForServer();
        continue;
      }
      if (!answer.ok) {
        throw new ServerError(answer.status, await sentence(answer));
      }
      return answer;
    }
  }

  /** Returns when the server answers again. */
  #waitForServer() {
    this.#back ??= this.#ping().finally(() => (this.#back = null));
    return this.#back;
  }

  async #ping() {
    for (let first = true; ; first = false) {
      try {
        const answer = await fetch("api/session", { cache: "no-store" });
        this.moved = answer.status === 403;
        if (!this.moved) {
          break;
        }
      } catch {
        this.moved = false;
      }
      if (first || this.moved) {
        this.#report(true);
      }
      await new Promise((resolve) => setTimeout(resolve, PING_MILLISECONDS));
    }
    this.#report(false);
  }

  #report(lost) {
    if (lost !== this.lost || lost) {
      this.lost = lost;
      this.dispatchEvent(new Event("change"));
    }
  }
}

/** Returns the sentence of an answer that reports an error. */
async function sentence(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `The server answered with the error ${answer.status}.`;
  }
}

export const connection = new Connection();
