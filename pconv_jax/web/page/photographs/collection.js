/**
 * The open photographs, of which one is shown.
 */

import * as api from "../server/api.js";
import { known } from "../server/recovery.js";
import { Photo } from "./photo.js";

export class Collection {
  constructor() {
    this.photos = [];
    this.current = null;
    this.folder = null; // Name of the folder that the server was started with.
  }

  /** Takes the photographs that the server already has: those of its folder, or of before the page was loaded again. */
  restore({ folder, photographs }) {
    this.folder = folder;
    this.photos = photographs.map((summary) => new Photo(summary));
  }

  /** Sends a file to the server and adds its photograph. */
  async add(file) {
    const name = file.name || "pasted.png";
    const info = await api.upload(file, name);
    const photo = new Photo(info, file);
    photo.describe(info);
    this.photos.push(photo);
    return photo;
  }

  /** Makes a photograph the one that is shown, and loads it. */
  async show(photo) {
    if (photo !== this.current) {
      this.current?.unload();
      this.current = photo;
    }
    if (!photo) {
      return;
    }
    try {
      if (!photo.info) {
        photo.describe(await known(photo, photo.original, (id) => api.photograph(id)));
      }
      if (!photo.picture && photo === this.current) {
        await photo.load();
      }
      photo.problem = "";
    } catch (error) {
      photo.problem = error.message;
    }
    if (photo !== this.current) {
      photo.unload(); // Another one was chosen meanwhile.
    }
  }

  /** Returns the photograph that lies a number of places after the current one, or null. */
  neighbour(places) {
    return this.photos[this.photos.indexOf(this.current) + places] ?? null;
  }

  /** Closes a photograph and returns the one to show in its place. */
  remove(photo) {
    const next = this.photos[this.photos.indexOf(photo) + 1] ?? this.photos[this.photos.indexOf(photo) - 1] ?? null;
    this.photos = this.photos.filter((other) => other !== photo);
    photo.unload();
    api.close(photo.id).catch(() => {}); // The server may have been started again.
    return next;
  }
}
