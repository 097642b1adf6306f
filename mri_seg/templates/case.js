"use strict";

startViewers();
