# The option `services.cc-ci.runner.capcity' does not exist
{ services.cc-ci.runner.capcity = 3; }
