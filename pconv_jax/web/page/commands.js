/**
 * All that a person can do by a button or a key: name, title, keys, whether it is possible now, and what it does.
 */

import { areaCommands } from "./commands/area.js";
import { fillingCommands } from "./commands/filling.js";
import { photographCommands } from "./commands/photographs.js";
import { viewCommands } from "./commands/view.js";

/**
 * @typedef {object} Command
 * @property {string} name the value of `data-command` of its buttons.
 * @property {string} group the heading under which the sheet of keys lists it.
 * @property {string} title what it does.
 * @property {string[]} keys such as "Ctrl+Z"; Ctrl is also Cmd on a Mac.
 * @property {() => boolean} [enabled] whether it is possible now; by default always.
 * @property {() => string} [otherwise] tells why it is not possible now.
 * @property {() => boolean} [pressed] whether its button is shown as pressed or switched on.
 * @property {() => (void | Promise<void>)} run does it.
 */

/** Returns all commands, in the order of the sheet of keys. */
export function commands(app) {
  return [...photographCommands(app), ...areaCommands(app), ...fillingCommands(app), ...viewCommands(app)];
}
