/**
 * Requests to the server. While it does not answer, they wait and are sent again when it is back.
 */

const PING_MILLISECONDS = 1000;
const FORBIDDEN = 403;
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
  #base = ""; // The page's own address, or the path of the one that replaced it.
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
        answer = await fetch(this.url(path), options);
      } catch {
        if (attempt === ATTEMPTS) {
          throw new Error(
            "The request could not be sent, though the server answers. If the file was moved or changed, open it again.",
          );
        }
        await this.#waitForServer();
        continue;
      }
      if (answer.status === FORBIDDEN && attempt < ATTEMPTS) {
        await this.#waitForServer(); // Until this page knows the server's new address.
        continue;
      }
      if (!answer.ok) {
        throw new ServerError(answer.status, await sentence(answer));
      }
      return answer;
    }
  }

  /** Returns the address of a path below `api/`. */
  url(path) {
    return `${this.#base}api/${path}`;
  }

  /** Goes on under another address of the same host and port. Returns whether the text is one. */
  move(address) {
    const { origin, pathname } = URL.canParse(address) ? new URL(address) : {};
    if (origin !== location.origin || !/^\/[\w-]{32,}\/$/.test(pathname)) {
      return false;
    }
    this.#base = pathname;
    return true;
  }

  /** Returns when the server answers again. */
  #waitForServer() {
    this.#back ??= this.#ping().finally(() => (this.#back = null));
    return this.#back;
  }

  async #ping() {
    for (;;) {
      let moved = false;
      try {
        const answer = await fetch(this.url("session"), { cache: "no-store" });
        moved = answer.status === FORBIDDEN;
        if (!moved) {
          this.#report(false, false);
          return;
        }
      } catch {
        // It still does not answer.
      }
      this.#report(true, moved);
      await new Promise((resolve) => setTimeout(resolve, PING_MILLISECONDS));
    }
  }

  #report(lost, moved) {
    if (lost !== this.lost || moved !== this.moved) {
      Object.assign(this, { lost, moved });
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
