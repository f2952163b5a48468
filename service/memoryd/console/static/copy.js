// Buttons that copy a text. Browsers allow it over TLS and on this machine; elsewhere one selects the text.
(() => {
  "use strict";
  if (!navigator.clipboard) return;
  const show = () => document.querySelectorAll("[data-copy]").forEach((button) => { button.hidden = false; });
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.firstChild.textContent = "Copied";
    setTimeout(() => { button.firstChild.textContent = "Copy"; }, 2000);
  });
  document.addEventListener("htmx:load", show);
  show();
})();
