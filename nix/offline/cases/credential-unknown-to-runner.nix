# services.cc-ci.runner.credentials: the runner does not read ui_pasword; look for a spelling mistake.
{ services.cc-ci.runner.credentials.ui_pasword = "/run/a"; }
