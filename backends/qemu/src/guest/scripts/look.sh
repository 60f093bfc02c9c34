# shellcheck shell=sh
survey
