// The end of the job, which comes after every other step, also after one that failed. Without the folder of a main step
// there is nothing to take back, and no program needs to be found for it.
'use strict';

if (process.env.STATE_dir) require('./run.js').hand('post');
