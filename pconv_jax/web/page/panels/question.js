/**
 * Asks a question that has to be answered before anything happens.
 */

/**
 * @param {string} text the question.
 * @param {string} yes the text of the button that agrees.
 * @returns {Promise<boolean>} whether the person agreed.
 */
export function ask(text, yes) {
  const dialog = document.getElementById("question");
  document.getElementById("question-text").textContent = text;
  const agree = document.getElementById("question-yes");
  agree.textContent = yes;
  agree.onclick = () => dialog.close("yes");
  document.getElementById("question-no").onclick = () => dialog.close("no");
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
