// Questions before what can't be taken back, and copying with a click.

function ask(text, verb) {
  const dialog = document.createElement("dialog");
  dialog.className = "dialog";
  const message = document.createElement("p");
  message.textContent = text;
  const form = document.createElement("form");
  form.method = "dialog";
  const no = document.createElement("button");
  no.className = "button";
  no.value = "no";
  no.textContent = "Back";
  const yes = document.createElement("button");
  yes.className = "button button-strong";
  yes.value = "yes";
  yes.textContent = verb;
  form.append(no, yes);
  dialog.append(message, form);
  document.body.append(dialog);
  dialog.showModal();
  yes.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => { resolve(dialog.returnValue === "yes"); dialog.remove(); });
  });
}

async function copy(element, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch (error) {
    // without a secure context there is no clipboard; select the text instead
    getSelection().selectAllChildren(element);
    return;
  }
  element.classList.add("copied");
  setTimeout(() => element.classList.remove("copied"), 900);
}

export function arrived() {
  for (const button of document.querySelectorAll("[data-copy-payload]")) button.hidden = false;
}

export function start() {
  document.addEventListener("holdfast:morphed", arrived);
  document.addEventListener("submit", (event) => {
    const form = event.target;
    const question = form.dataset?.confirm;
    if (!question || form.dataset.confirmed) return;
    event.preventDefault();
    event.stopPropagation();
    const verb = (event.submitter ?? form.querySelector("button")).textContent.trim();
    ask(question, verb).then((yes) => {
      if (!yes) return;
      form.dataset.confirmed = "yes";
      form.requestSubmit();
    });
  }, { capture: true });
  document.addEventListener("click", (event) => {
    const element = event.target.closest?.("[data-copy]");
    if (element) copy(element, element.dataset.copy);
    const button = event.target.closest?.("[data-copy-payload]");
    if (button) copy(button, button.closest(".payload").querySelector("pre").textContent);
  });
}
