// The step itself.
'use strict';

require('./run.js').hand('main');
