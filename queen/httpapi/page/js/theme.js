// Sets the colours before the first paint, so that nothing flashes. It is no
// module: those wait for the page.
(() => {
  const kept = (() => { try { return localStorage.getItem('hivebeat.theme'); } catch { return null; } })();
  if (kept === 'light' || kept === 'dark') document.documentElement.dataset.theme = kept;
})();
