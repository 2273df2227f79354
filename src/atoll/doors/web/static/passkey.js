"use strict";
// Forms that a passkey fills in: what it is asked is fetched, what it answers is sent as a form. They are
// hidden where there are no passkeys, and without a script.
{
async function answer(form) {
  const asked = await fetch(form.dataset.passkey, { method: "POST", headers: { accept: "application/json" } });
  const options = await asked.json();
  if (!asked.ok) throw new Error(options.error);
  const credential = options.user
    ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
    : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
  form.elements.credential.value = JSON.stringify(credential);
}

const can = window.PublicKeyCredential?.parseRequestOptionsFromJSON !== undefined;
for (const form of can ? document.querySelectorAll("form[data-passkey]") : []) {
  (form.closest("details[hidden]") ?? form).hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      await answer(form);
      form.submit(); // as a form, so that the server says where to go
    } catch (error) {
      form.querySelector("output").textContent = error.name === "NotAllowedError"
        ? "Nothing was chosen." : error.message;
      button.disabled = false;
    }
  });
}
}
