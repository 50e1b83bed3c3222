// The end of the job, which comes after every other step, also after one that failed. Without a folder of a main step
// there is nothing to do, and no program needs to be found for it.
'use strict';

if (process.env.STATE_dir || process.env.STATE_roots) require('./run.js').hand('post');
