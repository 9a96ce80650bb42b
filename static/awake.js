// A phone that is only listened to must not lock its screen: the conversation would end with it.

/** Keep the screen on while `wanted()`, as far as the browser lets us; it forgets whenever the page is hidden. */
export function stayAwake(wanted) {
  if (!navigator.wakeLock) return;
  let lock = null;
  const hold = async () => {
    if (lock || document.hidden || !wanted()) return;
    lock = await navigator.wakeLock.request("screen").catch(() => null);
    lock?.addEventListener("release", () => (lock = null));
  };
  document.addEventListener("visibilitychange", hold);
  addEventListener("click", hold);
}
