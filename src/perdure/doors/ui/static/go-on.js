// The answer of an institution came from its page, without our cookies; sent once more from ours, they come along.
"use strict";

document.querySelector("form[data-go-on]").submit();
