// A form with data-passkey asks the browser for a new key ("create") or for a signature ("get") before it is sent.
// data-options holds what the server wants, with bytes as base64url text; the answer goes into the field `answer`.
"use strict";

const bytesOf = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));

const textOf = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");

function readOptions(text) {
  const options = JSON.parse(text);
  const withBytes = (list) => (list || []).map((one) => ({ ...one, id: bytesOf(one.id) }));
  options.challenge = bytesOf(options.challenge);
  if (options.user) options.user.id = bytesOf(options.user.id);
  options.excludeCredentials = withBytes(options.excludeCredentials);
  options.allowCredentials = withBytes(options.allowCredentials);
  return options;
}

function writeAnswer(credential) {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[name]) response[name] = textOf(credential.response[name]);
  }
  return JSON.stringify({ id: credential.id, rawId: textOf(credential.rawId), type: credential.type, response });
}

async function ask(form) {
  const publicKey = readOptions(form.dataset.options);
  const credential = await navigator.credentials[form.dataset.passkey]({ publicKey });
  form.elements.answer.value = writeAnswer(credential);
  form.submit();
}

if (window.PublicKeyCredential) {
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    form.hidden = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const note = form.querySelector("[role=status]");
      note.textContent = "";
      ask(form).catch((error) => {
        const known = error.name === "InvalidStateError";
        note.textContent = known ? "This device has a passkey of yours already." : "No passkey was used.";
      });
    });
  }
}
