// What each page is for. The manual has more: `flipside help`.
import type { Stage } from "./words";

export const HELP: Record<Stage | "Configuration", string[]> = {
  Configuration: [
    "A configuration file says what the upgrade controls: disks, application services, log backup, custom actions. Load one, or go on without.",
    "The server checks the file first and names file, line and key of whatever is wrong. Then the readiness check runs with it.",
  ],
  "Active Upgrade": [
    "The readiness check looks at the machine, its disks, the guest, the network and the configuration; it changes nothing. Retry runs it again after you have corrected what it found.",
    "Errors keep the system from being split. Warnings do not, but look at each of them first.",
    "Split runs the check once more, then divides the system. The users notice nothing.",
  ],
  "Split System": [
    "Install on the Upgrade Side: flipside shell, flipside run, flipside copy. It has no network and no data disks, and may be restarted: flipside restart --side upgrade.",
    "Verify it, keep looking after the applications on the Production Side, then merge in a moment that suits the users.",
  ],
  "Merge System": ["The users are on the upgraded software. Test it in production: flipside verify-list helps. Then commit, or abort to bring them back."],
  "Commit Upgrade": ["The upgrade is permanent. The mirrors are resynchronised in the background; you may finish meanwhile."],
  "Abort Upgrade": ["Everything is as it was. The mirrors are resynchronised in the background; you may finish meanwhile."],
  Finish: ["The session is cleaned up, and its log is kept."],
};
