# mkOption has no argument `descripton'
{ lib, ... }: { options.services.cc-ci.extra = lib.mkOption { descripton = "a word too short"; }; }
