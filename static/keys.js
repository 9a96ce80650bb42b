// The keyboard: Esc stops, the space bar talks. Neither takes a key from a field or a button that needs it.

const TYPING = "input:not([type=checkbox], [type=radio], [type=range], [type=button]), textarea, select, [contenteditable]";
const PRESSABLE = "button, a[href], summary, input, [role=tab]";

/** `actions`: stop, press, release. `manual()`: whether the space bar is the talk key; `talkButton` never keeps it. */
export function listenToKeys({ stop, press, release }, manual, talkButton) {
  const taken = (target) => {
    if (document.querySelector("dialog[open]") || target.closest?.(TYPING)) return true;
    return target !== talkButton && Boolean(target.closest?.(PRESSABLE));
  };
  addEventListener("keydown", (event) => {
    if (event.isComposing) return; // an input method's own: Esc takes back what it offers
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) stop();
    if (event.code !== "Space" || !manual() || taken(event.target)) return;
    event.preventDefault();
    if (!event.repeat) press();
  });
  addEventListener("keyup", (event) => {
    if (event.code !== "Space") return;
    if (manual() && !taken(event.target)) event.preventDefault(); // a button would be clicked
    release(); // whatever the space bar is now: it may have been the talk key when it went down
  });
  addEventListener("blur", release); // the keyup would go elsewhere
  document.addEventListener("visibilitychange", () => document.hidden && release());
  // A button that was clicked with the mouse keeps the focus, and would keep the space bar with it.
  addEventListener("click", ({ detail, target }) => {
    if (detail > 0 && !target.closest?.("dialog")) target.closest?.("button")?.blur();
  });
}
