/**
 * The settings of the filling, which the browser keeps.
 */

const KEY = "pconv_jax.settings";
const CARE = {
  1: "Quick: fill once",
  2: "Average of 2 fillings",
  4: "Average of 4 fillings",
  8: "Average of 8: slightly better, 8 times slower",
};

/** Connects the panel and returns a function that brings it up to date. */
export function settingsPanel(app) {
  const [weights, about, ensemble, dilate, feather] = ["weights", "weights-about", "ensemble", "dilate", "feather"].map(
    (id) => document.getElementById(id),
  );
  for (const [count, text] of Object.entries(CARE)) {
    ensemble.add(new Option(text, count));
  }
  const kept = stored();
  const take = () => {
    app.settings = {
      weights: weights.value,
      ensemble: Number(ensemble.value),
      dilate: pixels(dilate),
      feather: pixels(feather),
    };
  };
  const changed = (event) => {
    if (event.target === feather && pixels(feather) > pixels(dilate)) {
      dilate.value = pixels(feather); // Blending needs pixels around the painted area.
    }
    if (event.target === dilate && pixels(dilate) < pixels(feather)) {
      feather.value = pixels(dilate);
    }
    take();
    try {
      localStorage.setItem(KEY, JSON.stringify({ ...app.settings, offered: offered(app) }));
    } catch {
      // A browser may forbid it; the settings then last until the page is closed.
    }
    app.refresh();
  };
  for (const field of [weights, ensemble, dilate, feather]) {
    field.addEventListener("change", changed);
  }
  ensemble.value = kept.ensemble in CARE ? kept.ensemble : 1;
  dilate.value = kept.dilate ?? 0;
  feather.value = kept.feather ?? 0;
  let listed = false;
  return () => {
    if (app.session && !listed) {
      listed = true;
      const chosen = kept.offered === offered(app) ? kept.weights : null;
      for (const { id, name, default: standard } of app.session.weights) {
        weights.add(new Option(name, id, standard, chosen ? id === chosen : standard));
      }
      take();
    }
    const chosen = app.session?.weights.find(({ id }) => id === weights.value);
    about.textContent = chosen?.description ?? "";
  };
}

/** Returns the networks of the server as text: a choice among others is not kept, and the first one is taken. */
function offered(app) {
  return JSON.stringify(app.session?.weights);
}

function pixels(field) {
  return Math.min(Number(field.max), Math.max(0, Math.round(Number(field.value) || 0)));
}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}
