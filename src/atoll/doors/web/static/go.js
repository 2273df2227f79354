// A program that only looks at a link (a mail scanner, a chat preview) runs no scripts and sends no
// forms, so the one-time code is still there for the person.
document.getElementById("go").submit();
