(function () {
  "use strict";
  var root = document.documentElement;
  var status = document.getElementById("status");

  var toggle = document.getElementById("theme");
  var system = matchMedia("(prefers-color-scheme: dark)");
  function dark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }
  function name() {
    toggle.textContent = dark() ? "Light" : "Dark";
    toggle.setAttribute("aria-label", "Switch to the " + (dark() ? "light" : "dark") + " theme");
  }
  toggle.addEventListener("click", function () {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch (error) { /* not kept */ }
    name();
  });
  system.addEventListener("change", name);
  name();

  var search = document.getElementById("search");
  if (search) {
    var rows = Array.prototype.slice.call(document.querySelectorAll("tr[data-search]"));
    var none = document.getElementById("none");
    var table = document.querySelector("table.models");
    var count = document.getElementById("count");
    var texts = rows.map(function (row) { return row.dataset.search + " " + row.textContent.toLowerCase(); });
    var filter = function () {
      var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      var left = 0;
      rows.forEach(function (row, at) {
        row.hidden = !words.every(function (word) { return texts[at].indexOf(word) >= 0; });
        left += row.hidden ? 0 : 1;
      });
      none.hidden = left > 0 || !table;
      if (table) table.hidden = left === 0;
      count.textContent = left + (left === 1 ? " model" : " models");
    };
    search.addEventListener("input", filter);
    search.addEventListener("keydown", function (event) {
      if (event.key === "Escape") { search.value = ""; filter(); }
    });
    var asked = new URLSearchParams(location.search).get("q");
    if (asked) search.value = asked;
    filter();
  }

  function selectText(node) {
    var range = document.createRange();
    range.selectNodeContents(node);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  }
  document.querySelectorAll("button[data-copy]").forEach(function (button) {
    button.addEventListener("click", function () {
      var source = document.getElementById(button.dataset.copy);
      var said = function (done) {
        status.textContent = done ? "Copied" : "Selected; copy it with the keyboard";
        button.textContent = done ? "Copied" : "Selected";
        setTimeout(function () { button.textContent = "Copy"; status.textContent = ""; }, 2000);
      };
      var byHand = function () { selectText(source); said(document.execCommand("copy")); };
      if (navigator.clipboard) navigator.clipboard.writeText(source.textContent).then(function () { said(true); }, byHand);
      else byHand();
    });
  });

  function open() {
    var target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  }
  addEventListener("hashchange", open);
  open();
})();
