# The runner with users for steps; checked beside the example.
{ services.cc-ci.runner.stepUsers = "20000-20099"; }
