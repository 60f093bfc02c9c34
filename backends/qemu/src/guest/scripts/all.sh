# Lists all services. Lines: file UNIT STATE; unit UNIT LOAD ACTIVE SUB DESCRIPTION.
# shellcheck shell=sh
systemctl list-unit-files --type=service --no-legend --full | while IFS= read -r line; do
    printf 'file %s\n' "$line"
done
systemctl list-units --type=service --all --plain --no-legend --full | while IFS= read -r line; do
    printf 'unit %s\n' "$line"
done
