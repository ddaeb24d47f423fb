/**
 * Starts the page.
 */

import { App } from "./app.js";
import { commands } from "./commands.js";
import { Keys } from "./input/keys.js";
import { openingPanel } from "./panels/opening.js";
import { comparing } from "./panels/comparing.js";
import { connectionBanner } from "./panels/banner.js";
import { buttons } from "./panels/buttons.js";
import { loadIcons } from "./panels/icons.js";
import { dock } from "./panels/dock.js";
import { keysSheet } from "./panels/keys_sheet.js";
import { placePanels } from "./panels/placing.js";
import { savingPanel } from "./panels/saving.js";
import { settingsPanel } from "./panels/settings.js";
import { strip } from "./panels/strip.js";
import * as api from "./server/api.js";

const app = new App();
app.commands = commands(app);
app.parts = [comparing, buttons, dock, savingPanel, settingsPanel, strip, openingPanel].map((part) => part(app));
new Keys(app);
keysSheet(app);
connectionBanner();
placePanels();
app.refresh();

try {
  await loadIcons();
  app.start(await api.session());
} catch (error) {
  app.fail(error);
}

window.addEventListener("beforeunload", (event) => {
  if (app.photos.photos.some((photo) => photo.unsaved)) {
    event.preventDefault(); // The browser asks whether to leave.
  }
});
