// SPDX-License-Identifier: Apache-2.0
// Calendar arithmetic of the RTC. Not gmtime/timegm: those read time zone files, which the seal forbids.
#ifndef CICADA_DEV_RTC_TIME_H
#define CICADA_DEV_RTC_TIME_H

#include <stdint.h>

struct rtc_time {
    int32_t year;       // e.g. 2026
    uint8_t month, day; // from 1
    uint8_t hour, minute, second;
    uint8_t weekday; // 1 = Sunday
};

// Seconds since 1970-01-01 UTC, proleptic Gregorian calendar.
void rtc_time_from_unix(int64_t seconds, struct rtc_time *t);
// Takes any field values (a guest may write day 0 or month 15): they carry over.
int64_t rtc_time_to_unix(const struct rtc_time *t);

#endif
