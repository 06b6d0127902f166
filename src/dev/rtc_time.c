// SPDX-License-Identifier: Apache-2.0
// Calendar arithmetic. Years are counted from March, so that the leap day is the last of its year.
#include "dev/rtc_time.h"

#define DAYS_PER_ERA 146097 // 400 years
#define DAYS_TO_1970 719468 // from 0000-03-01

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

static int64_t days_from_civil(int64_t year, int64_t month, int64_t day) {
    int64_t y, era, year_of_era, day_of_year;

    year += floor_div(month - 1, 12);
    month = month - 1 - floor_div(month - 1, 12) * 12 + 1;
    y = month <= 2 ? year - 1 : year;
    era = floor_div(y, 400);
    year_of_era = y - era * 400;
    day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * DAYS_PER_ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - DAYS_TO_1970;
}

static void civil_from_days(int64_t days, struct rtc_time *t) {
    int64_t z = days + DAYS_TO_1970, era = floor_div(z, DAYS_PER_ERA);
    int64_t day_of_era = z - era * DAYS_PER_ERA;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153; // 0 = March

    t->day = (uint8_t)(day_of_year - (153 * month + 2) / 5 + 1);
    t->month = (uint8_t)(month < 10 ? month + 3 : month - 9);
    t->year = (int32_t)(year_of_era + era * 400 + (t->month <= 2));
}

void rtc_time_from_unix(int64_t seconds, struct rtc_time *t) {
    int64_t days = floor_div(seconds, 86400), rest = seconds - days * 86400;

    civil_from_days(days, t);
    t->hour = (uint8_t)(rest / 3600);
    t->minute = (uint8_t)(rest / 60 % 60);
    t->second = (uint8_t)(rest % 60);
    t->weekday = (uint8_t)((days + 4 - floor_div(days + 4, 7) * 7) + 1); // 1970-01-01 was a Thursday
}

int64_t rtc_time_to_unix(const struct rtc_time *t) {
    int64_t days = days_from_civil(t->year, t->month, t->day);

    return days * 86400 + t->hour * INT64_C(3600) + t->minute * INT64_C(60) + t->second;
}
