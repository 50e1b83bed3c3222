// The end of the job, which comes after every other step, also after one that failed. Without the folder of a main step,
// or a list of what it had no time to push, there is nothing to do, and no program needs to be found for it.
'use strict';

if (process.env.STATE_dir || process.env.STATE_left) require('./run.js').hand('post');
