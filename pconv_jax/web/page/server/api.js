/**
 * The server's interface, one function per request.
 */

import { connection } from "./connection.js";

async function json(path, options) {
  return (await connection.request(path, options)).json();
}

function query(values) {
  return new URLSearchParams(values).toString();
}

export function session() {
  return json("session");
}

/** Sends a photograph's file and returns what the server found in it. */
export function upload(file, name) {
  return json(`photographs?${query({ name })}`, { method: "POST", body: file });
}

export function photograph(id) {
  return json(`photographs/${id}`);
}

export function close(id) {
  return connection.request(`photographs/${id}`, { method: "DELETE" });
}

export function thumbnailAddress(id) {
  return connection.url(`photographs/${id}/thumbnail`);
}

/** Returns a PNG of a version of a photograph, or of a rectangle `[x, y, width, height]` of it. */
export async function preview(id, version, rect) {
  const part = rect ? `?${query({ x: rect[0], y: rect[1], width: rect[2], height: rect[3] })}` : "";
  return (await connection.request(`photographs/${id}/versions/${version}/preview${part}`)).blob();
}

/** Returns the file to save of a version, in full quality. */
export async function file(id, version, format) {
  return (await connection.request(`photographs/${id}/versions/${version}/file?${query({ format })}`)).blob();
}

/** Saves a version beside the originals of a folder. */
export function keep(id, version, format, overwrite) {
  const options = query(overwrite ? { format, overwrite: 1 } : { format });
  return json(`photographs/${id}/versions/${version}/keep?${options}`, { method: "POST" });
}

/** Removes a version that no other one builds on. */
export function forget(id, version) {
  return connection.request(`photographs/${id}/versions/${version}`, { method: "DELETE" });
}

/** Has the server read a mask file, or with polarity "alpha" the photograph's transparency. */
export function readMask(id, body, polarity) {
  return json(`photographs/${id}/mask?${query({ polarity })}`, { method: "POST", body });
}

/** Asks for a filling; `mask` is a PNG that lies at (x, y) of the photograph. */
export function startFilling(id, base, options, mask) {
  const values = query({ base, ...options, x: mask.x, y: mask.y });
  return json(`photographs/${id}/fillings?${values}`, { method: "POST", body: mask.png });
}

/** Returns a filling's state, at the latest after two seconds. */
export function filling(id) {
  return json(`fillings/${id}?wait=2`);
}

export function cancelFilling(id) {
  return json(`fillings/${id}`, { method: "DELETE" });
}
