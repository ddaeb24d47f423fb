/**
 * The lower edge of the page: the brush's size, how much is painted, and the filling in work.
 */

/** Connects the dock and returns a function that brings it up to date. */
export function dock(app) {
  const part = (id) => document.getElementById(id);
  const [size, sizeText, share, work] = ["size", "size-text", "share", "work"].map(part);
  const buttons = Object.fromEntries(
    ["fill", "cancel"].map((name) => [name, part("dock").querySelector(`[data-command=${name}]`)]),
  );
  size.addEventListener("input", () => {
    app.size = app.largestSize ** (Number(size.value) / Number(size.max));
    const { width, height } = app.stage.size;
    app.showCursor(app.photo.viewport.toPhotograph(width / 2, height / 2)); // Shows the size while the slider moves.
    app.refresh();
  });
  size.addEventListener("pointerup", () => {
    app.showCursor(null);
    app.element.focus({ focusVisible: false });
  });
  size.addEventListener("blur", () => app.showCursor(null));
  return () => {
    part("dock").hidden = !app.photo;
    document.body.dataset.state = app.photo ? "open" : "empty";
    const { photo } = app;
    const filling = photo?.filling ?? null;
    if (photo?.info) {
      size.value = (Math.log(app.size) / Math.log(app.largestSize)) * Number(size.max);
      sizeText.textContent = `${app.size} px`;
      size.setAttribute("aria-valuetext", `${app.size} pixels`);
    }
    const hadFocus = buttons.fill.ownerDocument.activeElement;
    buttons.fill.hidden = filling !== null;
    buttons.cancel.hidden = filling === null;
    if (hadFocus === buttons.fill && filling) {
      buttons.cancel.focus();
    } else if (hadFocus === buttons.cancel && !filling) {
      buttons.fill.focus();
    }
    app.element.dataset.filling = filling !== null;
    app.element.dataset.area =
      app.areaVisible && !app.comparing && !app.element.dataset.original ? "visible" : "hidden";
    work.hidden = filling === null;
    if (filling?.progress != null) {
      work.value = filling.progress;
    } else {
      work.removeAttribute("value");
    }
    const text = filling ? fillingText(filling) : photo?.mask ? areaText(photo.mask) : "";
    if (share.textContent !== text) {
      share.textContent = text;
    }
  };
}

function areaText({ area, width, height }) {
  const percent = (100 * area) / (width * height);
  if (!area) {
    return "Paint over what should go";
  }
  return `${percent < 0.1 ? "less than 0.1" : percent.toFixed(1)} % is painted`;
}

function fillingText({ cancelled, state, position, secondsLeft }) {
  if (cancelled) {
    return "Cancelling …";
  }
  if (state === "queued" && position > 0) {
    return position === 1 ? "Waiting for one filling" : `Waiting for ${position} fillings`;
  }
  if (secondsLeft === null) {
    return "Filling …";
  }
  const seconds = Math.max(1, Math.round(secondsLeft));
  const time = seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
  return `Filling, about ${time} left`;
}
