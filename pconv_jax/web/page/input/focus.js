/**
 * Moves the keyboard's focus.
 */

const FOCUSABLE = "button, input, select, a[href], [tabindex='0']";

/** Moves the focus to the next element that takes it, or the previous one. */
export function focusNext(element, backward) {
  const all = [...document.querySelectorAll(FOCUSABLE)].filter(
    (other) => other === element || (!other.disabled && other.checkVisibility({ visibilityProperty: true })),
  );
  const place = all.indexOf(element) + (backward ? -1 : 1);
  const next = all[(place + all.length) % all.length];
  next.focus({ focusVisible: true });
}
