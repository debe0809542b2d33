"""The fixed measures of a sheet, in pixels."""

#: Pixels of a sheet. Pillow warns of a decompression bomb from 89 million on, and other viewers give up soon after.
MAX_PIXELS = 80_000_000

#: Longest side of a thumbnail. Larger images are scaled down to it, as every image on the sheet.
THUMB_MAX_PX = 512

#: Thumbnails are enlarged by whole factors until labels above them can be read ...
THUMB_READABLE_PX = 160

#: ... and are not shrunk below this to make a sheet fit.
THUMB_MIN_PX = 48

#: Sections below one another on one picture.
SECTIONS_MAX = 24

MARGIN_PX = 48
GAP_PX = 12
#: Further space between columns, and between rows, of different outer values.
GROUP_GAP_PX = 24
SECTION_GAP_PX = 44
#: Between the strips of a list, whose labels are their only heads.
STRIP_GAP_PX = 22
TITLE_PX = 44
SECTION_TITLE_PX = 36
FIELDS_PX = 24
LEGEND_PX = 30
FOOT_PX = 24

#: Sizes of letters, and from line to line.
ROW_TEXT, ROW_LEADING = 15, 20
COLUMN_TEXT, COLUMN_LEADING = 14, 19
SUBTITLE_TEXT, SUBTITLE_LEADING = 14, 20

#: A row's label, and the outer one left of it.
ROW_LABEL_PX = 220
OUTER_LABEL_PX = 190
LABEL_GAP_PX = 24
LABEL_LINES = 8

#: Columns are widened to this under labels that are wider than their thumbnails.
COLUMN_READABLE_PX = 112

#: Between an image and its difference, and for the words below.
DIFFERENCE_GAP_PX = 4
CAPTION_PX = 20

#: A title and a line of facts have room on the smallest sheet.
WIDTH_MIN_PX = 640
SUBTITLE_LINES = 4
