# is not of type `positive integer
{ services.cc-ci.runner.capacity = "3"; }
